"""The SSH adapter: steps on rentable machines over plain OpenSSH. Knows no actor and no other adapter."""
