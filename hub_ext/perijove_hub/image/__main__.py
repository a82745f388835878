"""``python -m perijove_hub.image [--rebuild] [--if-engine]``: what ``make image`` calls."""

import sys

from perijove.model import OperatorError
from perijove_hub.image import build_image
from perijove_hub.up.engine import choose_launcher

options = set(sys.argv[1:])
if "--if-engine" in options and (choice := choose_launcher()).name != "docker":
    print(f"no notebook image is needed for {choice.why}")
    sys.exit()
try:
    build_image(rebuild="--rebuild" in options, say=print)
except OperatorError as error:
    sys.exit(f"perijove: {error}")
