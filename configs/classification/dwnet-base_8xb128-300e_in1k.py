# bash tools/dist_train.sh \
#     configs/classification/dwnet-base_8xb128-300e_in1k.py 8
# Published: 83.2 top-1 (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = './dwnet-tiny_8xb128-300e_in1k.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.5),
    head=dict(in_channels=1024),
)
