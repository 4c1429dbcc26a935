# SPDX-License-Identifier: Apache-2.0
"""Peers, certificates and the daemon under test. Knows no scenario."""
