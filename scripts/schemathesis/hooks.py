"""What schemathesis cannot be told by its configuration."""

import os

import schemathesis

OWN_KEY = os.environ.get("MRPO_KEY_ID", "")


@schemathesis.hook
def before_call(context, case, **kwargs):
    """Nobody saws off the branch they sit on: a run that revokes its own key sees nothing but 401 from there on."""
    if OWN_KEY and case.path_parameters and case.path_parameters.get("key_id") == OWN_KEY:
        case.path_parameters["key_id"] = "key-" + "0" * 32


@schemathesis.deserializer("application/octet-stream", "application/x-tar")
def as_it_is(ctx, response):
    """Files are described as strings of bytes."""
    return response.content.decode("latin-1")
