"""Compose a configuration and run its job: python run.py experiment=dress_stage2"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # for the moment until the next line has an answer

from lit_modules.callbacks.stop import ending_cleanly  # noqa: E402

with ending_cleanly():  # imports take seconds
    import hydra
    from omegaconf import DictConfig

    from dress.jobs.start import start

    @hydra.main(version_base="1.3", config_path="conf", config_name="run")
    def main(cfg: DictConfig) -> None:
        start(cfg)

    if __name__ == "__main__":
        main()
