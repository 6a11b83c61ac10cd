"""What the parts of the Python exercise share: patience, expectations of errors, and the list of the parts."""
import json
import time
import traceback

from kubernetes.client.rest import ApiException

PATIENCE = 120
PARTS = []


def part(function):
    """One part of the exercise; each runs whatever the others do."""
    PARTS.append(function)
    return function


def run_all(only):
    """Runs the parts in order; gives how many failed."""
    failed = 0
    for function in PARTS:
        if only and function.__name__ not in only:
            continue
        begun = time.monotonic()
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {function.__name__} {time.monotonic() - begun:.1f} s", flush=True)
    return failed


def until(what, look):
    """Waits until look() gives something true; gives that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so: {what}")
        time.sleep(0.1)


def same(is_, wanted):
    assert is_ == wanted, f"{is_!r} is not {wanted!r}"


def refused(status, reason, call, *args, **kwargs):
    """The Status of a call that must be refused, which the exception and its body agree on."""
    try:
        answer = call(*args, **kwargs)
    except ApiException as e:
        body = json.loads(e.body)
        same(e.status, status)
        same((body["kind"], body["apiVersion"], body["status"]), ("Status", "v1", "Failure"))
        same((body["code"], body["reason"]), (status, reason))
        return body
    raise AssertionError(f"was not refused: {answer}")
