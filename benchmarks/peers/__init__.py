"""How fast are layers against ONNX Runtime and OpenVINO, and how does that grow with T, H and N?"""
