"""Generated tasks: text from small grammars, for a first run without a network and for tests."""
