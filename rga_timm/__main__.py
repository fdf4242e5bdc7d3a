"""``python -m rga_timm VERB ...`` is ``rga-timm VERB ...``."""

from rga_timm.cli import main

if __name__ == "__main__":
    main()
