"""Experiments of the papers that this project builds on, one a file, judged by what was published and by theory."""
