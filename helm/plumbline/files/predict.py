"""What `helm test` runs: is the server ready, and does it predict?"""

import json
import os
import sys
import urllib.error
import urllib.request

server, key = os.environ["SERVER"], os.environ.get("API_KEY")


def ask(path, body=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(server + path, data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


try:
    ask("/readyz")
    print(server, "is ready")
    print("it predicts:", ask("/predict", {"inputs": "is anybody there?"})[:500])
except urllib.error.HTTPError as error:
    print(server, "answers", error.code, error.read().decode()[:500])
    if error.code == 401 and not key:
        print("it wants a key: make a Secret with the key api_key, and set test.apiKeySecret to its name")
    sys.exit(1)
except OSError as error:
    sys.exit(f"{server} cannot be reached: {error}")
