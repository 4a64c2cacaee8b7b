"""Export of trained models to other formats: ONNX, torch.export, a copied model folder."""
