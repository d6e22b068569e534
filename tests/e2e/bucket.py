"""Google Cloud Storage on this computer: `python bucket.py PORT` serves an empty bucket called `bucket` until it is killed."""

import sys

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

_download = objects.download


def download(request, response, storage, *rest, **named):
    """As it was, with an object's generation told, which TensorStore wants and the emulator leaves out."""
    _download(request, response, storage, *rest, **named)
    try:
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    except objects.NotFound:
        pass


objects.download = download
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
