"""The command line, `llmsched`: a module for each command; `options` and `formats` hold what they share."""
