"""How Envoy talks to Mixer: ext_authz for checks, access-log streams for reports."""
