"""`python -m orchard`."""

from orchard.app.cli import main

raise SystemExit(main())
