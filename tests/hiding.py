"""Code for a process in which some modules cannot be imported."""

# Python finds nothing of what is hidden.
HIDE = """
import sys

class Others:
    finders = list(sys.meta_path)

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in {hidden}:
            found = (one.find_spec(name, path, target) for one in cls.finders)
            return next(filter(None, found), None)

sys.meta_path[:] = [Others]
"""
