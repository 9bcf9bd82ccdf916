"""The only ways out: every dial to another machine is made in this room, so that an auditor reads one place."""
