"""`python -m ollama_dify`: the command, where no script is on the path."""

import sys

from .cli import main

sys.exit(main())
