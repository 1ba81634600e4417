"""What a visitor is told when something is not possible: a status and one sentence, never a path or a trace."""


class Refused(Exception):
    """The request ends with this status and text."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text
