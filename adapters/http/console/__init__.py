"""The operators' console at `/`: pages that the server makes, live by server-sent events, readable without JavaScript.

It asks what anybody may ask over NATS, in the operator's name and by the same road, so that it sees, may and is
audited no more and no less. What it is given by `supervisors.boot` stands in `ports`.
"""
