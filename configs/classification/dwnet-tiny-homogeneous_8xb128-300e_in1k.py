# bash tools/dist_train.sh \
#     configs/classification/dwnet-tiny-homogeneous_8xb128-300e_in1k.py 8
# Published: 81.8 top-1 (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = './dwnet-tiny_8xb128-300e_in1k.py'
model = dict(backbone=dict(dynamic='homogeneous'))
