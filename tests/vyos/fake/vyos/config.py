"""The configuration of a commit: what a test has set on its router."""


class Config:
    # The router that is asked, set by the test.
    router = None

    def exists(self, path):
        return self.router.exists(path)

    def get_config_dict(self, path=(), get_first_key=False, with_recursive_defaults=False):
        assert get_first_key, "our scripts ask in this way only"
        return self.router.config(path, defaults=with_recursive_defaults)
