"""The page in a real Chromium against the real daemon: a person logs in and watches, and nothing is complained of."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.chromium import CHROMIUM, Browser, browsing
from tests.support.processes import ENTRY, TARGET, Pair, http, running, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"),
]

EVIL = "<img src=x onerror=window.owned=1><script>window.owned=1</script>"
DESKTOP, PHONE = (1280, 900), (390, 844)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running(tmp_path_factory.mktemp("page"), web__port=str(free_port())) as started:
        yield started


@pytest.fixture
def browser() -> Iterator[Browser]:
    with browsing() as started:
        started.look_like(*DESKTOP)
        yield started


def address(pair: Pair) -> str:
    return f"http://127.0.0.1:{pair.daemon.settings['web__port']}"


def log_in(pair: Pair, browser: Browser) -> None:
    token = json.loads(pair.daemon.done("web", "token", "--json"))["token"]
    browser.go(address(pair) + "/")
    assert browser.value("location.pathname") == "/login"
    browser.type("not the token")
    browser.press("Enter", 13)
    browser.until("document.querySelector('.wrong').innerText.includes('not the token')")
    browser.complaints.clear()  # the browser's word for the 403 that was asked for
    browser.value("document.querySelector('#token').focus()")
    browser.type(token)
    browser.press("Enter", 13)
    browser.until("location.pathname === '/' && !document.querySelector('#overview').hidden", "the overview")


def row(ref: str) -> str:
    return f"[...document.querySelectorAll('tbody tr')].find(row => row.innerText.includes('{ref}'))"


def has_no_sideways_scroll(browser: Browser) -> bool:
    return bool(browser.value("document.documentElement.scrollWidth <= window.innerWidth"))


def test_person_logs_in_and_sees_a_bracket_from_its_entry_to_its_end(pair: Pair, browser: Browser) -> None:
    log_in(pair, browser)
    spread = pair.open_bracket("live-1", state="PENDING_ENTRY", tags={"note": EVIL})
    browser.until(f"{row('live-1')}.innerText.includes('PENDING_ENTRY')")
    browser.until(f"{row('live-1')}.innerText.includes('to the entry')", "the distance to the entry")

    pair.paper.quote(spread, ENTRY)
    browser.until(f"{row('live-1')}.innerText.includes('EXITS_LIVE')")
    browser.until(f"{row('live-1')}.querySelector('.gauge svg circle')", "the gauge")
    assert "protected" in browser.value(f"{row('live-1')}.innerText")

    browser.value(f"{row('live-1')}.querySelector('a').click()")
    browser.until("document.querySelectorAll('.chart .level').length === 4", "target, entry, stop and its limit")
    browser.until("document.querySelector('.chart .price')", "the course of the price")
    browser.until("document.querySelector('.chart .fill.entry')")
    assert EVIL in browser.text()

    pair.paper.quote(spread, TARGET)
    pair.daemon.until_closed("live-1")
    browser.until("document.querySelector('.facts').innerText.includes('target filled')")
    browser.until("document.querySelector('.chart .fill.target')")
    browser.until("document.querySelector('.story').innerText.includes('[EXITS_LIVE → CLOSED]')")

    browser.value("document.querySelector('.back').click()")
    browser.until(f"!document.querySelector('#lately').hidden && {row('live-1')}.innerText.includes('target filled')")
    assert browser.value("document.querySelectorAll('#open tbody tr').length") == 0
    assert browser.value("document.title") == "otocod"
    assert browser.complaints == []


def test_hostile_names_and_attention_are_words_on_the_page_and_nothing_else(pair: Pair, browser: Browser) -> None:
    ref = EVIL
    spread = pair.paper.spread()
    pair.daemon.submit(ref, spread.request(tags={"<b>tag</b>": EVIL}))
    assert pair.daemon.answered(ref)[0] == "ACCEPTED", pair.daemon.row(ref)
    pair.paper.working(spread)
    pair.paper.quote(spread, ENTRY)
    bracket = pair.daemon.until_state(ref, "EXITS_LIVE")
    pair.paper.act(next(each for each in pair.paper.orders(spread) if each["status"] == "Live"), "cancel", by="user")
    pair.daemon.until_attention(ref, "cancelled by a person")
    log_in(pair, browser)
    browser.until("!document.querySelector('#attention').hidden")
    assert EVIL in browser.text()
    browser.value(f"location.hash = '#/b/{bracket['bracket_id']}'")
    browser.until("document.querySelector('.story li')")
    assert EVIL in browser.text()
    assert browser.value("document.images.length") <= 1  # ours
    assert browser.value("document.scripts.length") == 2  # ours
    assert browser.value("window.owned") is None
    browser.value("location.hash = '#/b/' + encodeURIComponent('<b>none</b>')")
    browser.until("document.querySelector('#bracket').innerText.includes('no bracket <b>none</b>')")
    # The browser's word for that 404 is all it complains of.
    assert all("404" in complaint for complaint in browser.complaints)
    pair.daemon.done("close", bracket["bracket_id"])
    pair.daemon.until_closed(ref)


@pytest.mark.parametrize("dark", [False, True])
def test_phone_shows_everything_without_scrolling_sideways(pair: Pair, browser: Browser, dark: bool) -> None:
    ref = f"phone-{dark}-" + "x" * 80
    spread = pair.open_bracket(ref)
    browser.look_like(*PHONE, phone=True, dark=dark)
    log_in(pair, browser)
    browser.until(f"{row(ref)}.innerText.includes('EXITS_LIVE')")
    assert has_no_sideways_scroll(browser)
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) is dark
    browser.value(f"{row(ref)}.querySelector('a').click()")
    browser.until("document.querySelector('.story li') && document.querySelector('.chart')")
    assert has_no_sideways_scroll(browser)
    assert browser.complaints == []
    pair.paper.quote(spread, TARGET)
    pair.daemon.until_closed(ref)


def test_keyboard_reaches_a_bracket_and_keeps_its_place_while_the_page_changes(pair: Pair, browser: Browser) -> None:
    spread = pair.open_bracket("keys", state="PENDING_ENTRY")
    log_in(pair, browser)
    browser.until(row("keys"))
    for _ in range(12):
        browser.press("Tab", 9)
        if browser.value("document.activeElement.closest('tbody') !== null"):
            break
    focused = "document.activeElement.closest('tr') === " + row("keys")
    assert browser.value(focused)
    pair.paper.quote(spread, ENTRY)
    browser.until(f"{row('keys')}.innerText.includes('EXITS_LIVE')")
    assert browser.value(focused)
    browser.press("Enter", 13)
    browser.until("location.hash.startsWith('#/b/') && document.querySelector('.story li')")
    pair.paper.quote(spread, TARGET)
    pair.daemon.until_closed("keys")


def test_daemon_that_goes_away_is_told_and_the_page_goes_on_when_it_is_back(tmp_path: Path, browser: Browser) -> None:
    with running(tmp_path / "d", web__port=str(free_port())) as pair:
        log_in(pair, browser)
        pair.daemon.kill()
        browser.until("document.querySelector('#trouble').innerText.includes('does not answer')")
        pair.daemon.restart()
        # Sessions live in memory, so the door is shown again.
        browser.until("location.pathname === '/login'")


def test_windows_that_hang_do_not_delay_an_exit(pair: Pair) -> None:
    """Forty connections that ask and never read, while a target fills: the bracket ends, and the page answers."""
    spread = pair.open_bracket("beside")
    port = int(pair.daemon.settings["web__port"])
    token = (pair.daemon.data_dir / "web-token").read_text().strip()
    hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    for number, each in enumerate(hanging):
        each.sendall(b"GET /login HTTP/1.1\r\nHost: localhost:%d\r\n" % port + (b"\r\n" if number % 2 else b""))
    pair.paper.quote(spread, TARGET)
    closed = pair.daemon.until_closed("beside", timeout_s=10)
    assert closed["outcome"] == "TARGET_FILLED"
    with pytest.raises(AssertionError, match="401"):
        http("GET", f"{address(pair)}/api/overview")
    for each in hanging:
        each.close()
    assert token not in pair.daemon.all_logs()


def test_token_file_is_made_for_its_owner_and_a_wrong_one_keeps_only_the_page_away(tmp_path: Path) -> None:
    with running(tmp_path / "d", start=False, web__port=str(free_port())) as pair:
        pair.daemon.data_dir.mkdir(mode=0o750)
        (pair.daemon.data_dir / "web-token").write_text("open to all, and long enough to be a token\n")
        (pair.daemon.data_dir / "web-token").chmod(0o644)
        pair.daemon.restart()
        assert pair.daemon.told("web_failed", error="chmod 0600")
        assert pair.daemon.cli("web", "token").returncode == 1
        (pair.daemon.data_dir / "web-token").unlink()
        pair.daemon.stop()
        pair.daemon.restart()
        until(lambda: (pair.daemon.data_dir / "web-token").stat().st_mode & 0o777 == 0o600, "a token of its own")
