"""The private step behind transformers' Trainer and TRL's.

Read `private_trainer`, and `preference_trainer` on top of it, then what they are told and refuse
(`privacy_arguments`, `refused_arguments`, `refused_trackers`, `evaluated_data`), how steps become
its data (`steps_as_data`), and what of the library it stands on (`required_hooks`). Offers
`PrivateTrainer`, `PrivatePreferenceTrainer` and `PrivacyArguments`.
"""
