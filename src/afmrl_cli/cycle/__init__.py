"""The closed loop: attributes -> AGCL -> RAR -> attributes -> ..., scored rung by rung."""
