"""Why somebody does not get in: what they read, and what the operator and the audit log do."""

from __future__ import annotations


class LoginRefusedError(Exception):
    """A login that ends here.

    `detail` is for the log and the audit log and holds no secret; `advice` is what its person can do. Neither
    repeats what a provider or a browser sent, beyond names of errors.
    """

    status = 403
    heading = "You were not logged in"

    def __init__(self, detail: str, advice: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice or "Start again. If it happens again, tell the administrators of this site."


class ForgedAnswerError(LoginRefusedError):
    """What came back is not what this hub asked for, or nobody but the provider could have made it."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail,
            "The answer of the login provider could not be trusted. Start again from the login page of this"
            " site; if it happens again, tell its administrators.",
        )


class StaleLoginError(LoginRefusedError):
    """A login that was not begun in this browser, took too long, or was used before."""

    status = 400

    def __init__(self, detail: str) -> None:
        super().__init__(
            detail,
            "This login was not begun in this browser, took too long, or was used already. Start again.",
        )


class DeclinedError(LoginRefusedError):
    """The provider, or the person at the provider, said no."""


class UnverifiedEmailError(LoginRefusedError):
    """The address that would say who they are was never checked."""

    def __init__(self, provider: str) -> None:
        super().__init__(
            "no verified e-mail address",
            f"Your e-mail address at {provider} is not verified, and this site needs one that is. Verify it"
            " there, then log in again.",
        )


class ProviderDownError(LoginRefusedError):
    """The provider, the directory or the service does not answer."""

    status = 503

    def __init__(self, who: str, detail: str) -> None:
        super().__init__(detail, f"{who} does not answer. Try again in a moment.")
