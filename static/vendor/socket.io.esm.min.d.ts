/** The part of socket.io-client that the browser client uses. */
export interface Socket {
  readonly connected: boolean;
  readonly id?: string;
  connect(): Socket;
  disconnect(): Socket;
  on(event: string, listener: (...args: any[]) => void): Socket;
  onAny(listener: (event: string, ...args: any[]) => void): Socket;
  timeout(ms: number): Socket;
  emit(event: string, ...args: unknown[]): Socket;
}
export interface SocketOptions {
  path?: string;
  transports?: string[];
  forceNew?: boolean;
  autoConnect?: boolean;
  reconnection?: boolean;
  timeout?: number;
  auth?: (give: (data: Record<string, unknown>) => void) => void;
}
export function io(url: string, options: SocketOptions): Socket;
