"""Compose a configuration and run its job: python run.py experiment=dress_stage2"""

import hydra
from omegaconf import DictConfig

from dress.jobs.start import ending_cleanly, start


@hydra.main(version_base="1.3", config_path="conf", config_name="run")
def main(cfg: DictConfig) -> None:
    start(cfg)


if __name__ == "__main__":
    with ending_cleanly():
        main()
