import threading

import pytest

from unet.background import Background


def test_tasks_run_beside_the_caller_and_in_their_order():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def first():
        begun.set()
        assert go_on.wait(60)
        done.append(1)

    with Background() as background:
        background.start(first)
        assert begun.wait(60)
        background.check()
        assert not done
        go_on.set()
        background.start(lambda: done.append(2))
    assert done == [1, 2]


def fails():
    raise OSError("no room")


def leave(background: Background, error: type[BaseException] | None = None) -> None:
    with background:
        if error:
            raise error


def check(background: Background) -> None:
    while True:
        background.check()


@pytest.mark.parametrize("then", [Background.wait, leave, check])
def test_an_error_is_raised_once_where_the_caller_comes_by(then):
    background = Background()
    background.start(fails)
    with pytest.raises(OSError, match="no room"):
        then(background)
    background.wait()


def test_no_task_begins_after_one_that_failed():
    done = []
    background = Background()
    background.start(fails)
    with pytest.raises(OSError, match="no room"):
        background.start(lambda: done.append(1))
    leave(background)
    assert not done


def test_an_error_of_the_caller_is_not_hidden_and_the_task_still_ends():
    done, slowly = [], threading.Event()
    background = Background()
    background.start(lambda: done.append(slowly.wait(0.2)))
    with pytest.raises(KeyboardInterrupt):
        leave(background, KeyboardInterrupt)
    assert done == [False]
