# tools/dist_train.sh configs/starnet/\
# rtmdet-ins-tiny_starnet-s1_8xb32-300e_coco.py 8
# Not trained. With CSPNeXt, mmdet publishes 40.5 box and 35.4 mask AP.
_base_ = [
    'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    '../_base_/backbones/starnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = _base_.pop('starnet').rtmdet_s1
