"""Other forms of the action, as a keyword (``actions="cells"``) and as wrappers."""

from instanas_env.wrappers.forms import ActionForm, action_form
from instanas_env.wrappers.menu import load_menu, save_menu
from instanas_env.wrappers.wrapper import ActionFormWrapper, VectorActionFormWrapper

__all__ = [
    "ActionForm",
    "ActionFormWrapper",
    "VectorActionFormWrapper",
    "action_form",
    "load_menu",
    "save_menu",
]
