"""What a driver with a thread of its own looks like."""

import threading
import time

threading.Thread(target=lambda: time.sleep(3600), daemon=True).start()
