# bash tools/dist_train.sh \
#     configs/classification/starnet-s4_8xb256-300e_in1k.py 8
# Published: 78.4 top-1 (StarNet paper). Not trained here.
_base_ = './starnet-s1_8xb256-300e_in1k.py'
model = dict(
    backbone=dict(arch='s4', drop_path_rate=0.1),
    head=dict(in_channels=256),
)
