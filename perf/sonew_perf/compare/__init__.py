"""Two versions or two configurations against each other, interleaved in one run, with verdicts that state what they could have seen."""
