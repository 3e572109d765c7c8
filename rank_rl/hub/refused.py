"""What went wrong with the Hub, as one line that says what is kept and what to do.

The client's errors come from several libraries that share no base: its own, its HTTP client (httpx,
or requests in older versions), hf_xet. Whatever is none of them is a bug and stays one.
"""

from __future__ import annotations

from collections.abc import Iterator

from rank_rl.errors import BackendError, DataError, RankRLError

KEPT = "large files that were sent are kept and not sent again: run the same command"
_CLIENTS = ("httpx", "httpcore", "requests", "urllib3", "hf_xet", "huggingface_hub")


def readable(error: BaseException, what: str, where: str) -> RankRLError | None:
    """The error of a client as one that the user can act on; None for a bug.

    Args:
        error: what a call of huggingface_hub raised.
        what: the repository, as messages name it.
        where: the address of the Hub.
    """
    from huggingface_hub.errors import HfHubHTTPError

    links = list(_chain(error))
    for link in links:
        if "Invalid metadata in README.md" in str(link):
            said = " ".join(str(link).split()).removeprefix("Invalid metadata in README.md.")
            return DataError(f"the Hub refuses the card:{said}", where=f"{what}: README.md")
    for link in links:
        if isinstance(link, HfHubHTTPError) and link.response is not None:
            return _answered(link, what, where)
    for link in links:
        if "LFS batch" in str(link):
            return BackendError(f"the Hub refuses a large file: {_first(link)}", where=what)
    for link in links:
        if isinstance(link, ConnectionError | TimeoutError) or _of_client(link):
            return BackendError(
                f"the connection failed: {_first(link) or type(link).__name__}",
                where=where,
                remedy=f"check the network and HF_ENDPOINT; {KEPT}",
            )
    return None


def _answered(error: object, what: str, where: str) -> RankRLError:
    """A status that the Hub answered with."""
    response = getattr(error, "response")  # noqa: B009
    status, said = int(response.status_code), _said(error)
    if status == 401:
        return BackendError(
            "the Hub does not know the token, or the token may not see the repository",
            where=f"{what} at {where}",
            remedy="log in with `hf auth login`, or set HF_TOKEN to a token that can write",
        )
    if status == 403:
        return BackendError(
            f"the token may not write there{said}",
            where=f"{what} at {where}",
            remedy="take a token with write access to the owner of the repository",
        )
    if status in (409, 412):
        return BackendError(
            f"the repository was changed in the meantime{said}",
            where=what,
            remedy="nothing was committed; " + KEPT,
        )
    if status == 404 and "xet" in str(response.request.url):
        return BackendError(
            "this Hub has no Xet storage", where=where, remedy="set HF_HUB_DISABLE_XET=1"
        )
    if status == 404:
        return BackendError(f"not found{said}", where=f"{what} at {where}")
    if status == 429 or status >= 500:
        return BackendError(
            f"the Hub answered {status}{said}", where=where, remedy=f"try again later; {KEPT}"
        )
    return BackendError(f"the Hub refused ({status}){said}", where=what)


def _said(error: object) -> str:
    message = getattr(error, "server_message", None) or ""
    text = " ".join(str(message).split())
    return f": {text[:300]}" if text else ""


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


def _of_client(error: BaseException) -> bool:
    return any(kind.__module__.startswith(_CLIENTS) for kind in type(error).__mro__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__
