# Licensed under the Apache License, Version 2.0. See LICENSE.
"""A config that is formatted once."""

from __future__ import annotations

import copy

from mmengine.config import Config


class CachedConfig(Config):
    """A config that formats its text again only after a change.

    A run writes it into its log, its folder and each checkpoint, and yapf
    takes up to a second to format it.
    """

    @classmethod
    def of(cls, cfg: Config) -> CachedConfig:
        """Returns a copy of a config."""
        copied = cls.__new__(cls)
        copied.__dict__.update(copy.deepcopy(cfg).__dict__)
        return copied

    @property
    def pretty_text(self) -> str:
        key = repr(self._cfg_dict)
        if self.__dict__.get('_formatted', ('',))[0] != key:
            self.__dict__['_formatted'] = key, super().pretty_text
        return self.__dict__['_formatted'][1]
