//! The routes of the control socket: each handler reads its request, asks the control plane and gives back a view.
//! The OpenAPI document is made from the annotations here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::{IntoParams, OpenApi};

use super::change::{Action, Change};
use super::configuration::Desired;
use super::plane::{ControlPlane, Wanted};
use super::query;
use super::refusal::Refusal;
use super::sessions::{self, SessionQuery};
use super::strict_json;
use super::view;
use crate::config::model::Document;
use crate::metrics;

/// Bytes a request's body may have.
pub const BODY_MAX: usize = 4 << 20;
/// How long a request's body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

type Plane = State<Arc<ControlPlane>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// The router over a control plane.
pub fn router(plane: Arc<ControlPlane>) -> Router {
    Router::new()
        .route("/v1/version", get(get_version))
        .route("/v1/ports", get(get_ports))
        .route("/v1/workers", get(get_workers))
        .route("/v1/services", get(get_services))
        .route("/v1/services/{name}", get(get_service))
        .route("/v1/services/{name}/real-servers", post(add_real_server))
        .route("/v1/services/{name}/real-servers/{address}", axum::routing::delete(remove_real_server))
        .route("/v1/services/{name}/real-servers/{address}/weight", post(weigh_real_server))
        .route("/v1/services/{name}/real-servers/{address}/drain", post(drain_real_server))
        .route("/v1/services/{name}/real-servers/{address}/undrain", post(undrain_real_server))
        .route("/v1/sessions", get(get_sessions))
        .route("/v1/neighbours", get(get_neighbours))
        .route("/v1/routes", get(get_routes))
        .route("/v1/pools", get(get_pools))
        .route("/v1/drops", get(get_drops))
        .route("/v1/config", put(put_config).get(get_config))
        .route("/v1/config/save", post(save_config))
        .route("/v1/reload", post(reload))
        .route("/v1/openapi.json", get(get_openapi))
        .route("/metrics", get(get_metrics))
        .fallback(async |request: Request| {
            Refusal::NotFound(format!(
                "There is nothing at {:?}; GET /v1/openapi.json lists what there is.",
                request.uri().path()
            ))
        })
        .method_not_allowed_fallback(async |method: Method| Refusal::Method(method.to_string()))
        .with_state(plane)
}

/// The router of the TCP socket for Prometheus.
pub(super) fn metrics_router(plane: Arc<ControlPlane>) -> Router {
    Router::new().route("/metrics", get(get_metrics)).with_state(plane)
}

/// The OpenAPI document of the socket.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "fullnat control socket",
        description = "HTTP/1.1 and JSON over a UNIX socket, by default /run/fullnat/control.sock: \
                       `curl --unix-socket /run/fullnat/control.sock http://fullnat/v1/version`. Whoever may connect \
                       may do everything: root, the daemon's user, members of the socket's group. A request that is \
                       not carried out is answered by a problem object (application/problem+json)."
    ),
    paths(
        get_version,
        get_ports,
        get_workers,
        get_services,
        get_service,
        add_real_server,
        remove_real_server,
        weigh_real_server,
        drain_real_server,
        undrain_real_server,
        get_sessions,
        get_neighbours,
        get_routes,
        get_pools,
        get_drops,
        get_config,
        put_config,
        save_config,
        reload,
        get_openapi,
        get_metrics
    ),
    components(schemas(view::Problem, view::Fault))
)]
struct Description;

/// The OpenAPI document as text, the same as `docs/openapi.json`.
///
/// # Errors
/// The document cannot be written as JSON, which its own test excludes.
pub fn openapi() -> Result<String, serde_json::Error> {
    Ok(Description::openapi().to_pretty_json()? + "\n")
}

/// Parts of the path, percent-decoded.
struct Segments<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Refusal> {
        let Path(segments) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection: PathRejection| Refusal::bad_request(rejection.body_text()))?;
        Ok(Segments(segments))
    }
}

/// The query string.
struct Parameters<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Refusal> {
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection: QueryRejection| Refusal::bad_request(rejection.body_text()))?;
        Ok(Parameters(parameters))
    }
}

/// A whole body within its limits of size and time.
struct Whole(Bytes);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        collect(&parts.headers, body).await.map(Whole)
    }
}

/// Reads a whole body within its limits of size and time; one announced as too large is not read at all.
pub(super) async fn collect(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > BODY_MAX as u64) {
        return Err(Refusal::TooLarge { limit: BODY_MAX });
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await {
        Err(_) => Err(Refusal::BodyTimeout(BODY_TIME.as_secs())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge { limit: BODY_MAX }),
        Ok(Err(error)) => Err(Refusal::bad_request(format!("The body broke off: {error}."))),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// A JSON body of a known shape.
struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let media = media_type(request.headers());
        let Whole(body) = Whole::from_request(request, state).await?;
        match media.as_str() {
            "application/json" | "" => Ok(JsonBody(strict_json::parse(&body)?)),
            _ => Err(Refusal::MediaType(media)),
        }
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let text = text.unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What runs.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = view::Version)))]
async fn get_version(State(plane): Plane) -> Json<view::Version> {
    Json(query::version(&plane))
}

/// The NIC ports.
#[utoipa::path(get, path = "/v1/ports", responses((status = 200, body = [view::Port])))]
async fn get_ports(State(plane): Plane) -> Json<Vec<view::Port>> {
    Json(query::ports(&plane))
}

/// The workers and their counters.
#[utoipa::path(get, path = "/v1/workers", responses((status = 200, body = [view::Worker])))]
async fn get_workers(State(plane): Plane) -> Json<Vec<view::Worker>> {
    Json(query::workers(&plane))
}

/// The virtual services with their real servers.
#[utoipa::path(
    get, path = "/v1/services",
    responses((status = 200, body = [view::Service]), (status = 503, body = view::Problem))
)]
async fn get_services(State(plane): Plane) -> Answer<Vec<view::Service>> {
    query::services(&plane).await.map(Json)
}

/// One virtual service with its real servers.
#[utoipa::path(
    get, path = "/v1/services/{name}", params(("name" = String, Path, description = "the service's name")),
    responses((status = 200, body = view::Service), (status = 404, body = view::Problem))
)]
async fn get_service(State(plane): Plane, Segments(name): Segments<String>) -> Answer<view::Service> {
    query::service(&plane, &name).await.map(Json)
}

/// Sessions, page by page.
#[utoipa::path(
    get, path = "/v1/sessions", params(SessionQuery),
    responses((status = 200, body = view::SessionPage), (status = 400, body = view::Problem))
)]
async fn get_sessions(
    State(plane): Plane,
    Parameters(query): Parameters<SessionQuery>,
) -> Answer<view::SessionPage> {
    sessions::sessions(&plane, &query).await.map(Json)
}

/// The neighbours, one entry per worker that knows of it.
#[utoipa::path(get, path = "/v1/neighbours", responses((status = 200, body = [view::Neighbour])))]
async fn get_neighbours(State(plane): Plane) -> Answer<Vec<view::Neighbour>> {
    query::neighbours(&plane).await.map(Json)
}

/// The routes, connected ones included.
#[utoipa::path(get, path = "/v1/routes", responses((status = 200, body = [view::Route])))]
async fn get_routes(State(plane): Plane) -> Json<Vec<view::Route>> {
    Json(plane.running().routes.to_vec())
}

/// The local pools and how far they are used.
#[utoipa::path(get, path = "/v1/pools", responses((status = 200, body = [view::Pool])))]
async fn get_pools(State(plane): Plane) -> Answer<Vec<view::Pool>> {
    query::pools(&plane).await.map(Json)
}

/// Every drop reason with its counters.
#[utoipa::path(get, path = "/v1/drops", responses((status = 200, body = [view::Drop])))]
async fn get_drops(State(plane): Plane) -> Json<Vec<view::Drop>> {
    Json(query::drops(&plane))
}

/// How the configuration is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Toml,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConfigQuery {
    /// `json` (default) or `toml`
    #[serde(default)]
    format: Format,
}

/// The running configuration, with the key names of the file.
#[utoipa::path(
    get, path = "/v1/config", params(ConfigQuery),
    responses((status = 200, content((Document = "application/json"), (String = "application/toml"))))
)]
async fn get_config(State(plane): Plane, Parameters(query): Parameters<ConfigQuery>) -> Response {
    let running = plane.running();
    match query.format {
        Format::Json => Json(&*running.document).into_response(),
        Format::Toml => {
            ([(header::CONTENT_TYPE, "application/toml")], running.toml.to_string()).into_response()
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChangeQuery {
    /// only check whether it could be done
    #[serde(default)]
    check: bool,
}

/// Replaces the configuration, whole or not at all; sessions that the change does not concern are not touched.
#[utoipa::path(
    put, path = "/v1/config", params(ChangeQuery),
    request_body(content((Document = "application/json"), (String = "application/toml"))),
    responses(
        (status = 200, body = view::Applied, description = "every worker works by it"),
        (status = 400, body = view::Problem, description = "not JSON or TOML"),
        (status = 409, body = view::Problem, description = "needs a restart"),
        (status = 413, body = view::Problem), (status = 415, body = view::Problem),
        (status = 422, body = view::Problem, description = "not valid; `errors` says where and why"),
        (status = 503, body = view::Problem, description = "a worker does not answer")
    )
)]
async fn put_config(
    State(plane): Plane,
    Parameters(query): Parameters<ChangeQuery>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Answer<view::Applied> {
    let media = media_type(&headers);
    let desired = match media.as_str() {
        "application/json" | "" => Desired::Json(strict_json::parse_value(&body)?),
        "application/toml" | "text/toml" | "text/x-toml" => Desired::Toml(match std::str::from_utf8(&body) {
            Ok(text) => text.to_owned(),
            Err(error) => return Err(Refusal::bad_request(format!("The body is not UTF-8: {error}."))),
        }),
        _ => return Err(Refusal::MediaType(media)),
    };
    plane.change(Wanted::Whole(desired), query.check).await.map(Json)
}

/// Reads the configuration file again and applies it.
#[utoipa::path(
    post, path = "/v1/reload", params(ChangeQuery),
    responses(
        (status = 200, body = view::Applied), (status = 409, body = view::Problem),
        (status = 422, body = view::Problem), (status = 500, body = view::Problem)
    )
)]
async fn reload(State(plane): Plane, Parameters(query): Parameters<ChangeQuery>) -> Answer<view::Applied> {
    plane.change(Wanted::Whole(Desired::File), query.check).await.map(Json)
}

/// Writes the running configuration into the file.
#[utoipa::path(
    post, path = "/v1/config/save",
    responses((status = 200, body = view::Saved), (status = 500, body = view::Problem))
)]
async fn save_config(State(plane): Plane) -> Answer<view::Saved> {
    plane.save().await.map(Json)
}

async fn edit(
    plane: &Arc<ControlPlane>,
    service: String,
    address: String,
    action: Action,
) -> Answer<view::Applied> {
    plane.change(Wanted::Edit(Change { service, address, action }), false).await.map(Json)
}

/// Adds a real server to a service.
#[utoipa::path(
    post, path = "/v1/services/{name}/real-servers",
    params(("name" = String, Path, description = "the service's name")), request_body = view::NewRealServer,
    responses(
        (status = 201, body = view::Applied), (status = 404, body = view::Problem),
        (status = 409, body = view::Problem, description = "it is there already"), (status = 422, body = view::Problem)
    )
)]
async fn add_real_server(
    State(plane): Plane,
    Segments(name): Segments<String>,
    JsonBody(new): JsonBody<view::NewRealServer>,
) -> Result<(StatusCode, Json<view::Applied>), Refusal> {
    let applied = edit(&plane, name, new.address, Action::Add(new.weight)).await?;
    Ok((StatusCode::CREATED, applied))
}

/// Removes a real server; what becomes of its sessions is the service's `on_remove`.
#[utoipa::path(
    delete, path = "/v1/services/{name}/real-servers/{address}",
    params(
        ("name" = String, Path, description = "the service's name"),
        ("address" = String, Path, description = "the real server, `address:port` or `address`")
    ),
    responses((status = 200, body = view::Applied), (status = 404, body = view::Problem))
)]
async fn remove_real_server(
    State(plane): Plane,
    Segments((name, address)): Segments<(String, String)>,
) -> Answer<view::Applied> {
    edit(&plane, name, address, Action::Remove).await
}

/// Sets a real server's weight.
#[utoipa::path(
    post, path = "/v1/services/{name}/real-servers/{address}/weight",
    params(
        ("name" = String, Path, description = "the service's name"),
        ("address" = String, Path, description = "the real server, `address:port` or `address`")
    ),
    request_body = view::NewWeight,
    responses((status = 200, body = view::Applied), (status = 404, body = view::Problem))
)]
async fn weigh_real_server(
    State(plane): Plane,
    Segments((name, address)): Segments<(String, String)>,
    JsonBody(new): JsonBody<view::NewWeight>,
) -> Answer<view::Applied> {
    edit(&plane, name, address, Action::Weight(new.weight)).await
}

/// Drains a real server: weight 0, it keeps its sessions and gets no new ones.
#[utoipa::path(
    post, path = "/v1/services/{name}/real-servers/{address}/drain",
    params(
        ("name" = String, Path, description = "the service's name"),
        ("address" = String, Path, description = "the real server, `address:port` or `address`")
    ),
    responses((status = 200, body = view::Applied), (status = 404, body = view::Problem))
)]
async fn drain_real_server(
    State(plane): Plane,
    Segments((name, address)): Segments<(String, String)>,
) -> Answer<view::Applied> {
    edit(&plane, name, address, Action::Drain).await
}

/// Gives a drained real server new sessions again.
#[utoipa::path(
    post, path = "/v1/services/{name}/real-servers/{address}/undrain",
    params(
        ("name" = String, Path, description = "the service's name"),
        ("address" = String, Path, description = "the real server, `address:port` or `address`")
    ),
    request_body(content = Option<view::Undrain>, description = "may be empty"),
    responses(
        (status = 200, body = view::Applied), (status = 404, body = view::Problem),
        (status = 409, body = view::Problem, description = "the former weight is not known")
    )
)]
async fn undrain_real_server(
    State(plane): Plane,
    Segments((name, address)): Segments<(String, String)>,
    Whole(body): Whole,
) -> Answer<view::Applied> {
    let undrain: view::Undrain =
        if body.is_empty() { Default::default() } else { strict_json::parse(&body)? };
    edit(&plane, name, address, Action::Undrain(undrain.weight)).await
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = Object)))]
async fn get_openapi() -> Response {
    match openapi() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => Refusal::File(format!("The document cannot be written: {error}.")).into_response(),
    }
}

/// All counters in the OpenMetrics text format, for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn get_metrics(State(plane): Plane) -> Result<Response, Refusal> {
    let scrape = metrics::Scrape {
        version: query::version(&plane),
        workers: plane.published(),
        ports: query::ports(&plane),
        services: query::services(&plane).await?,
        pools: query::pools(&plane).await?,
    };
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], scrape.encode()).into_response())
}
