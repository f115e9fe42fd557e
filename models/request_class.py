"""The class of a request, for predictors that count: length of the prompt, script, kind of task."""

from lengthpred.base import Request
from lengthpred.models.text_features import GROUP_NAMES, GROUPS

__all__ = ["path_of"]

# Words that open most prompts say less of the task than the word that follows them.
VAGUE = {"make", "ask", "closed", "role", "chat"}
SCRIPTS = ((0x0250, "latin"), (0x0530, "greek-cyrillic"), (0x2E80, "semitic-indic"))


def path_of(request: Request) -> tuple[str, ...]:
    """(model, prompt length, script, task): what a histogram counts by, from wide to narrow.

    A request without text has only a model.
    """
    prompt = request.prompt
    if not prompt:
        return (request.model or "*",)
    octave = min(max(len(prompt).bit_length(), 4), 14)
    return (request.model or "*", f"chars<{1 << octave}", _script(prompt[:200]), _task(prompt))


def _script(text: str) -> str:
    if text.isascii():
        return "ascii"
    # The middle one of the letters beyond ASCII: one emoji or quotation mark is no script.
    beyond = sorted(c for c in text if c > "\x7f" and c.isalpha())
    if len(beyond) * 20 < len(text):
        return "ascii"
    middle = ord(beyond[len(beyond) // 2])
    return next((name for end, name in SCRIPTS if middle < end), "east-asian")


def _task(prompt: str) -> str:
    if "```" in prompt[:2000]:
        return "code"
    vague = "other"
    for word in prompt[:100].lower().split()[:10]:
        group = GROUPS.get(word)
        if group is not None:
            name = GROUP_NAMES[group]
            if name not in VAGUE:
                return name
            vague = name if vague == "other" else vague
    return vague
