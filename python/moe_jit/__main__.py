"""``python -m moe_jit`` is ``moe-jit``."""

from .cli import main

if __name__ == "__main__":
    main()
