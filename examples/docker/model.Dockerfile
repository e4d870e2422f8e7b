# An archive as an image of its own, for Kubernetes' image volumes. The build context is the model store:
#
#   docker build -f examples/docker/model.Dockerfile -t tinychat:1.0 model_store
FROM scratch
ARG MODEL=tinychat
COPY ${MODEL} /${MODEL}
