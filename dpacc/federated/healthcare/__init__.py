"""Hospitals that learn together to find entities in clinical notes.

Notes are synthetic: read `vocabulary` for what they are about, `note_templates` and `writing_style`
for how they are written, `notes` for one of them, `hospitals` for who has which. `scenario` trains,
`held_out_notes` measures, `comparison` says what sharing adds and `entity_chart` draws it. Offers
`HealthcareFederation`, `hospitals_drawn` and `write_hospitals`.
"""
