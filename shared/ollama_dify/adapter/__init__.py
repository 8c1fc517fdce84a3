"""Names that only authors of adapters need."""

from ..client.owner import ClientOwner, on_event_loop
from ..client.request import Request, as_prompt
from ..media.load import load_audio, load_image
from ..settings.answer_format import answer_format
from ..settings.credentials import bound_values
from ..wire.messages import read_arguments
from ..wire.repair import read_json
from ..wire.tool_choice import read_tool_choice
from .quick_models import quick_constructor

__all__ = [
    "ClientOwner",
    "Request",
    "answer_format",
    "as_prompt",
    "bound_values",
    "load_audio",
    "load_image",
    "on_event_loop",
    "quick_constructor",
    "read_arguments",
    "read_json",
    "read_tool_choice",
]
