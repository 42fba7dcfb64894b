"""Layer 7: the command line. Parses, calls studies, hands records to report; decides exit codes."""
