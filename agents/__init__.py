"""Everything that chooses masks: the paper's controller and others, all with the surface of SB3."""
