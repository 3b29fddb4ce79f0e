"""Names that people know from dp-federated-lora-lab, over what this package has.

Read `aggregators`, `clients` and `accountant`. Each makes an object of this package's own, or says
what to use; docs/from_federated_lora_lab.md has both programs side by side. Offers
`SecureAggregator`, `ByzantineRobustAggregator`, `CompressedDPLoRA`, `AdaptiveRankSelector`,
`PersonalizedDPLoRA` and `PrivacyAccountant`.
"""
