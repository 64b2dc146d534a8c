# Mask R-CNN for many small objects on two CPU cores: ResNet-50 from random
# weights and an FPN with 128 channels.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, init_cfg=None),
    # From random weights the neck has norms too (arXiv 1811.08883).
    neck=dict(out_channels=128, num_outs=4, norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=128,
        feat_channels=128,
        # Anchors of 12 to 96 pixels: 9 nuclei in 10 are 7 to 54 pixels wide.
        anchor_generator=dict(scales=[3], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128),
        mask_roi_extractor=dict(out_channels=128),
        mask_head=dict(num_convs=2, in_channels=128, conv_out_channels=128),
    ),
    # Up to 86 nuclei an image: many proposals, of which a step samples few.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=1000, max_per_img=400),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=400)),
)
