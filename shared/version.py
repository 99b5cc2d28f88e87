"""The version of Outrider."""

VERSION = "0.1.0"
