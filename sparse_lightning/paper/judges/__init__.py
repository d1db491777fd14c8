"""From a study's result and the rules to a finding: one module for each kind of study."""
