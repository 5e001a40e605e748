"""The closed loop: attributes -> AGCL -> RAR -> attributes -> ..., scored stage by stage."""
