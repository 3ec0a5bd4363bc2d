# SPDX-License-Identifier: Apache-2.0
"""
What each route does, takes and answers, and which key it needs: what the API descriptions are written from.

``values``      an operation, its parameters, and what a listener shows
``inference``   what predicts, and what tells about health
``management``  what manages models, and replaces keys
``workflows``   what both do with workflows
``listing``     what a listener serves, what there is for one model
"""
