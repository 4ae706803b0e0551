"""Compose a configuration and run its job: python run.py experiment=dress_stage2"""

from dress.interrupts import ending_cleanly

with ending_cleanly():  # imports take seconds
    import hydra
    from omegaconf import DictConfig

    from dress.jobs.start import started, told_in_a_sentence

    @told_in_a_sentence()
    @hydra.main(version_base="1.3", config_path="conf", config_name="run")
    def main(cfg: DictConfig) -> float | None:
        with started(cfg) as job:
            return job.finish(job.work()(job))

    if __name__ == "__main__":
        main()
