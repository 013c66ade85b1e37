"""Processes of the router."""

# The router that is asked, set by the test.
router = None


def process_named_running(name):
    assert name == "clawgress", name
    return router.is_running()
